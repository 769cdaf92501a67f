"""MixFix with co-training (Table 5): two networks, each taught by what the other one sees in X_n."""

from __future__ import annotations

from clipaudit.training.methods.mixfix import MixFix


class CoTraining(MixFix):
    """A network's own mistakes do not come back to it as labels."""

    networks = 2

    def adviser(self, network: int) -> int:
        """The other network."""
        return 1 - network
