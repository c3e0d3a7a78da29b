"""One assessment: plan, preflight, units, findings, gates, verdict."""
