"""The churn application: `serve run serve_apps.churn:app --name churn --route-prefix /churn` on a running cluster."""

from __future__ import annotations

from headway.serving import application

app = application("churn")
