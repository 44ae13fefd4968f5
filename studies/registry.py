"""The studies by name, in the order of the report. Each takes the bench and returns its section."""

from collections.abc import Callable

from studies.ablations.balance import load_loss_section, loss_scale_section
from studies.ablations.expert_number import expert_number_section
from studies.ablations.labels import labels_section
from studies.ablations.masking import masking_section
from studies.ablations.metadata import metadata_section
from studies.ablations.missing_metadata import missing_metadata_section
from studies.ablations.noise import noise_section
from studies.ablations.pooling import pooling_section
from studies.ablations.transfer import transfer_section
from studies.engine.context import Bench
from studies.experts.section import experts_section
from studies.report_parts.sections import Section
from studies.sanity.metadata import metadata_section as sanity_metadata_section
from studies.sanity.overfit import overfit_section
from studies.sanity.routing import routing_section

STUDIES: dict[str, Callable[[Bench], Section]] = {}
STUDIES["pooling"] = pooling_section
STUDIES["metadata"] = metadata_section
STUDIES["missing_metadata"] = missing_metadata_section
STUDIES["labels"] = labels_section
STUDIES["masking"] = masking_section
STUDIES["expert_number"] = expert_number_section
STUDIES["load_loss"] = load_loss_section
STUDIES["loss_scale"] = loss_scale_section
STUDIES["noise"] = noise_section
STUDIES["transfer"] = transfer_section
STUDIES["experts"] = experts_section
STUDIES["sanity_overfit"] = overfit_section
STUDIES["sanity_routing"] = routing_section
STUDIES["sanity_metadata"] = sanity_metadata_section
