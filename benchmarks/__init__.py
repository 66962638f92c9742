"""Side-by-side measurements: peers and Headway on the same work in one run, `python -m benchmarks NAME --json FILE`."""
