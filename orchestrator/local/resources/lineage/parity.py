"""Parity rows of lineage."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import METADATA, PAGE_MEMBERS, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Rows

SOURCE = Members(
    {
        "SourceUri": Honoured("with SourceTypes, it identifies the artifact"),
        "SourceTypes": Members(make_honoured_rows("SourceIdType", "Value")),
    }
)
LIST_ROWS = make_honoured_rows(*PAGE_MEMBERS, "CreatedAfter", "CreatedBefore")
ASSOCIATION_ARNS = make_honoured_rows("SourceArn", "DestinationArn")

ROWS: Mapping[str, Rows] = {
    "CreateArtifact": {
        **make_honoured_rows("ArtifactName", "ArtifactType", "Properties"),
        "Source": SOURCE,
        "MetadataProperties": METADATA,
        "Tags": TAGS,
    },
    "DescribeArtifact": make_honoured_rows("ArtifactArn"),
    "UpdateArtifact": make_honoured_rows("ArtifactArn", "ArtifactName", "Properties", "PropertiesToRemove"),
    "DeleteArtifact": {"ArtifactArn": Honoured(), "Source": SOURCE},
    "ListArtifacts": {
        **LIST_ROWS,
        "SortBy": Honoured(values=("CreationTime",)),
        **make_honoured_rows("SourceUri", "ArtifactType"),
    },
    "AddAssociation": {**ASSOCIATION_ARNS, "AssociationType": Honoured()},
    "DeleteAssociation": ASSOCIATION_ARNS,
    "ListAssociations": {
        **LIST_ROWS,
        **ASSOCIATION_ARNS,
        **make_honoured_rows("SourceType", "DestinationType", "AssociationType"),
    },
}
