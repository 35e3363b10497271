"""Side-by-side measurements of the pipeline, one script for each question. `docs/benchmarks.md` explains them."""
