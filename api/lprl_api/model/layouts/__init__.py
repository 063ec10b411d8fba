"""Models whose layers no family of ModelShape describes: every weight and every cache from config.json alone, one function a family."""
