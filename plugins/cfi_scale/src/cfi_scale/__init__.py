"""Data sets explained into a store that grows, on one machine or a cluster.

import cfi_scale

cfi_scale.explain_dataset(explainer, images, "saliency.zarr")
"""
