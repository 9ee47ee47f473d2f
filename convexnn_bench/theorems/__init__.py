"""Theorems 3.3 to 3.5 of Sahiner et al. (ICLR 2024) as checks that can be called and watched."""
