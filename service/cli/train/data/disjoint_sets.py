"""Numbers that are joined into sets."""


class DisjointSets:
    """The numbers 0 to ``count`` - 1, each at first a set of its own; joined sets have one root."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        """Return the number that stands for the set of ``number``."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Join the sets of two numbers."""
        self._parents[self.root(one)] = self.root(other)
