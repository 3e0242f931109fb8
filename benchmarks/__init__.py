"""Speed of training and sampling. The benchmarks print results and assert nothing."""
