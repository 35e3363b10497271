"""How many ids or addresses one search asks for: grows while answers are good, halves when GHL refuses or fails."""

from dataclasses import dataclass

MAX_GROUP = 100


@dataclass(slots=True)
class GroupSize:
    """How many values one search asks for, as learned for a location. `ceiling` is what GHL has not refused."""

    size: int = 50
    ceiling: int = MAX_GROUP

    def grow(self, worked: int) -> None:
        """A group of `worked` values was answered; asks for up to twice as many next."""
        if worked >= self.size:
            self.size = min(self.ceiling, self.size * 2)

    def shrink(self, failed: int, *, refused: bool) -> None:
        """A group of `failed` values was not answered. A refusal lowers the ceiling for good, a failure does not."""
        half = max(1, failed // 2)
        self.size = min(self.size, half)
        if refused:
            self.ceiling = min(self.ceiling, half)
