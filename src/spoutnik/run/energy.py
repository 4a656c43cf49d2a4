"""Energy: read from the processor's own counters (RAPL) where there are any, else estimated from processor seconds, and said so."""

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules used by the whole processor package(s) since the meter was made; `available` is False where no counter can be read."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._zones = [
            zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1 and _read(zone / "energy_uj") is not None
        ]
        self._last = [_read(zone / "energy_uj") or 0 for zone in self._zones]
        self.available = bool(self._zones)

    def take(self) -> float:
        """Joules since the last call; the counters run over every few minutes to hours, so call it at least every minute."""
        total = 0
        for index, zone in enumerate(self._zones):
            now = _read(zone / "energy_uj")
            if now is None:
                continue
            used = now - self._last[index]
            if used < 0:
                used += _read(zone / "max_energy_range_uj") or 0
            self._last[index] = now
            total += max(used, 0)
        return total / 1e6


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
