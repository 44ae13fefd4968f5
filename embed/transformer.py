"""The earlier name of `embed.sklearn_step`, for pipelines that were pickled under it."""

from embed.sklearn_step import MoEMAETransformer, patch_rows

__all__ = ["MoEMAETransformer", "patch_rows"]
