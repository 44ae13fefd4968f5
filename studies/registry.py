"""The studies by name, in the order of the report. Each takes the context and returns its section."""

from collections.abc import Callable

from studies.ablations.balance import load_loss_section, loss_scale_section
from studies.ablations.bands import bands_section
from studies.ablations.expert_number import expert_number_section
from studies.ablations.labels import labels_section
from studies.ablations.masking import masking_section
from studies.ablations.metadata import metadata_section
from studies.ablations.missing_metadata import missing_metadata_section
from studies.ablations.noise import noise_section
from studies.ablations.pooling import pooling_section
from studies.ablations.transfer import transfer_section
from studies.engine.context import StudyContext
from studies.experts.section import experts_section
from studies.report_parts.sections import Section
from studies.sanity.metadata import metadata_section as sanity_metadata_section
from studies.sanity.overfit import overfit_section
from studies.sanity.routing import routing_section

STUDIES: dict[str, Callable[[StudyContext], Section]] = {
    "pooling": pooling_section,
    "metadata": metadata_section,
    "missing_metadata": missing_metadata_section,
    "bands": bands_section,
    "labels": labels_section,
    "masking": masking_section,
    "expert_number": expert_number_section,
    "load_loss": load_loss_section,
    "loss_scale": loss_scale_section,
    "noise": noise_section,
    "transfer": transfer_section,
    "experts": experts_section,
    "sanity_overfit": overfit_section,
    "sanity_routing": routing_section,
    "sanity_metadata": sanity_metadata_section,
}
