"""Evaluation: data, methods, metrics, reports."""
