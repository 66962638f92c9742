"""Two-sample statistics on counts: an effect, its lower confidence bound, and a p-value for the reader."""

from headway.monitoring.statistics.chi_square import homogeneity, total_variation
from headway.monitoring.statistics.effect import Effect
from headway.monitoring.statistics.ks import kolmogorov_smirnov

__all__ = ["Effect", "homogeneity", "kolmogorov_smirnov", "total_variation"]
