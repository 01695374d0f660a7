"""For apps that keep no copies of their URLs in Firebase."""

from collections.abc import Mapping, Sequence

from migration_pipeline.core.model import ProfileId, Rewritten
from migration_pipeline.core.ports import Fence
from migration_pipeline.core.texts import Text
from migration_pipeline.core.values import ReplaceFor


class NoDocuments:
    """Fulfils `DocumentStore` with no document for anybody (`firebase.kind = "none"`)."""

    def read(self, profile_ids: Sequence[ProfileId]) -> Mapping[ProfileId, Sequence[Text]]:  # noqa: ARG002 - the port's
        return {}

    def rewrite(
        self,
        profile_ids: Sequence[ProfileId],  # noqa: ARG002 - the port's
        replace: ReplaceFor,  # noqa: ARG002 - the port's
        fence: Fence,  # noqa: ARG002 - the port's
    ) -> Rewritten:
        return Rewritten()

    def close(self) -> None:
        """Nothing is open."""
