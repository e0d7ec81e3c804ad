"""
Tests of derp.

Examples of Hypothesis may take as long as the machine likes: how long that is depends on what
else it does. All else is as the profile says that Hypothesis has chosen itself (with ``CI`` set,
that is the same examples always).
"""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "no-hurry",
    settings(),
    deadline=None,
    suppress_health_check={*settings().suppress_health_check, HealthCheck.too_slow},
)
settings.load_profile("no-hurry")
