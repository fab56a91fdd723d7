"""What a torch model computes, for the toolsets whose rules attach to it. No plugin: toolsets on torch import it."""
