"""Looks at the attributions of a whole data set: mean maps, top samples, clusters.

    from cfi_scale import views

    views.average("saliency.zarr", by="target").plot()
    views.rank("saliency.zarr", "concentration", count=20).plot()
    views.cluster("saliency.zarr", by="prediction").plot()

All three take the path of a store of `cfi_scale.explain_dataset`, an `xarray.Dataset` with the same variables, or a
plain array with samples along its first axis.
"""

from cfi_scale.views.clusters import Clustering, Clusters, cluster
from cfi_scale.views.maps import ClassMaps, average
from cfi_scale.views.ranking import STATISTICS, Ranking, rank

__all__ = ["average", "rank", "cluster", "ClassMaps", "Ranking", "Clustering", "Clusters", "STATISTICS"]
