"""The report: one self-contained HTML page, charts drawn as SVG."""
