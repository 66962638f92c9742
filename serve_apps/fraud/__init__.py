"""The fraud application: `serve run serve_apps.fraud:app --name fraud --route-prefix /fraud` on a running cluster."""

from __future__ import annotations

from headway.serving import application

app = application("fraud")
