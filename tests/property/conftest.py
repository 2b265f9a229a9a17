"""How hypothesis runs here: as long as it takes. How fast a machine is that does other work besides says nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("palpable", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("palpable")
