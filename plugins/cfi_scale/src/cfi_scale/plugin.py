"""What this plugin offers. Importing it imports neither xarray nor zarr."""

from __future__ import annotations
