"""Fewer bands than in pretraining: Landsat 4 to 7's six, RGB + NIR, RGB, with weights trained for it and without."""

from studies.ablations.study import ProbeResults, Study
from studies.ablations.variants import EmbeddingSpec, Variant, probe, recipe_model, recipe_value, variant_of
from studies.engine.context import StudyContext
from studies.recipe.sensors import TITLES
from studies.report_parts.sections import Section
from transformation.augmentations import AUGMENTATIONS

SETS = {title: None if name == "seven" else name for name, title in TITLES.items()}
"""Title to a key of `BAND_SETS`; None is all bands."""


def bands_section(context: StudyContext) -> Section:
    """A probe on the embeddings of every set of bands, fitted and scored with the same."""
    study = Study(context, "bands", "Study: fewer bands", context.data.study)
    if recipe_model(context).published_behaviour:
        return study.not_run("as published, a missing band is the dataset's mean and no training knows of it.")
    plain, trained = (_by_bands(study, variant) for variant in bands_variants(context))
    differences = [
        trained.compare(title, title, plain, (f"trained with fewer bands, {title}", f"trained with all, {title}"))
        for title in SETS
    ]
    claims = {
        f"training with fewer bands helps where they are {title}": one
        for (title, bands), one in zip(SETS.items(), differences, strict=True)
        if bands is not None
    }
    whole = TITLES["seven"]
    tables = [
        *study.claims(claims),
        plain.table("bands_all", "Trained with all bands", "bands given", whole),
        trained.table("bands_fewer", "Half of the training images with fewer bands", "bands given", whole),
    ]
    both = {"trained with all bands": plain, "trained with fewer": trained}
    remark = (
        "A missing band is left out of the patch embedding; the probe is fitted with the bands that it is scored with."
    )
    return study.section(differences, tables, [study.figure_of(both, "Probe score by the bands given")], [remark])


def bands_variants(context: StudyContext) -> list[Variant]:
    """The recipe, and the recipe with missing bands in half of the training images."""
    own = recipe_value(context, "training.augmentations")
    given = own if isinstance(own, dict) else {name: AUGMENTATIONS[name].strength for name in own}
    share = {**given, "band_sets": AUGMENTATIONS["band_sets"].strength}
    return [
        variant_of(context, "all_bands", "trained with all bands"),
        variant_of(context, "band_sets", "trained with fewer bands", model__missing_bands="token",
                   training__augmentations=share),
    ]  # fmt: skip


def _by_bands(study: Study, variant: Variant) -> ProbeResults:
    pool = study.context.config.study.pool
    rows = {title: probe(study.context, variant, EmbeddingSpec(pool, bands=bands)) for title, bands in SETS.items()}
    return study.results(rows)
