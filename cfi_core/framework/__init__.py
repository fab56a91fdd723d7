"""What an adapter of a framework is made of: public, for plugins that bring one.

`FrameworkAdapter`, `Runner` and `State` are what it implements. The rest helps: structures of tensors (`flatten`,
`items`, `entry_of`, `map_structure`), axes (`named_axes`, `Permutation`, `inverse`), calls of layers (`LayerCalls`),
and of layers without hooks (`stand_in`), hashes of what models hold (`Content`), models with a fixed number of samples
(`Portions`), how many rows go through one at once (`rows_at_once`), seeds of samples
(`seed_of_sample`), passes of a run (`Passes`), one that a model has made by itself (`Recorded`, `recorded_pass`),
bounds that the environment raises (`Limit`), what a function calls its inputs (`Parameters`), ends of models (`Pick`,
`Several`), what an adapter makes for rules to attach to (`Canonical`), passes
made before they are asked for (`ForesightRunner`), where the values of a layer lie (`Layout`).
`cfi_core.arrays` has the adapter of functions of numpy arrays, to inherit from.
"""

from cfi_core.framework.axes import Permutation, inverse, named_axes
from cfi_core.framework.base import Embedded, FrameworkAdapter, Layer, Runner, Staged, hand_over
from cfi_core.framework.calls import LayerCalls
from cfi_core.framework.canonical import Canonical, Factories
from cfi_core.framework.content import Content, UnseenError, always_new, identity, refuse
from cfi_core.framework.ends import Pick, Several
from cfi_core.framework.foresight import ForesightRunner
from cfi_core.framework.layout import Layout, Placed
from cfi_core.framework.limits import Limit
from cfi_core.framework.parameters import Parameters
from cfi_core.framework.passes import Pass, Passes
from cfi_core.framework.portions import Portions, one_size, rows_at_once, seed_of_sample
from cfi_core.framework.recorded import Pullback, Recorded, recorded_pass
from cfi_core.framework.stand_ins import stand_in
from cfi_core.framework.state import State
from cfi_core.framework.structure import entry_of, flatten, is_structure, items, map_structure

__all__ = ["FrameworkAdapter", "Runner", "Pullback", "Staged", "Layer", "Embedded", "State", "hand_over"]
__all__ += ["flatten", "items", "entry_of", "map_structure", "is_structure", "named_axes", "Permutation", "inverse"]
__all__ += ["LayerCalls", "stand_in", "Content", "UnseenError", "always_new", "identity", "refuse"]
__all__ += ["Portions", "one_size", "rows_at_once", "seed_of_sample", "Pass", "Passes"]
__all__ += ["Limit", "Parameters", "Canonical", "Factories", "Pick", "Several", "Layout", "Placed"]
__all__ += ["Recorded", "recorded_pass"]
__all__ += ["ForesightRunner"]
