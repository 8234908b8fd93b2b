"""Any data set as one tensor (N, C, H, W) with labels, its splits, batches and augmentation.

It imports `base` and `geometry`, and does not know about models. Begin with `datasets`, then
`module`.
"""
