"""The shape of an embedding space at one dimension: how much of it is used, and how evenly."""

import numpy as np


def embedding_quality(vectors: np.ndarray, pairs: tuple[np.ndarray, np.ndarray] | None = None) -> dict[str, float]:
    """Figures of (n, d) ``vectors`` (n ≥ 2, any length) and, with ``pairs`` (questions, their pages), alignment.

    average_similarity, similarity_range, pairwise_distance: over distinct pairs of the unit vectors (cosine, max − min
        of it, Euclidean).
    dimension_utilisation: share of dimensions whose standard deviation is above a tenth of the mean one.
    norm_mean, norm_spread: of the vectors as given: a truncated prefix is shorter than 1.
    isotropy: participation ratio of the covariance spectrum over d, (Σλ)²/(d·Σλ²): 1 when all directions share alike.
    uniformity: log mean exp(−2·|x − y|²) over distinct pairs; alignment: mean |q − p|² (Wang and Isola 2020). Lower is
        better for both.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    unit = vectors / norms[:, None]
    upper = np.triu_indices(len(unit), 1)
    cosines = np.clip((unit @ unit.T)[upper], -1, 1)
    squared = 2 - 2 * cosines
    deviations = unit.std(axis=0)
    spectrum = np.linalg.eigvalsh(np.cov(unit.T)).clip(0)
    figures = {
        "average_similarity": cosines.mean(),
        "similarity_range": np.ptp(cosines),
        "pairwise_distance": np.sqrt(squared).mean(),
        "dimension_utilisation": (deviations > 0.1 * deviations.mean()).mean(),
        "norm_mean": norms.mean(),
        "norm_spread": norms.std(),
        "isotropy": spectrum.sum() ** 2 / (len(spectrum) * (spectrum**2).sum()),
        "uniformity": np.log(np.exp(-2 * squared).mean()),
    }
    if pairs is not None:
        questions, pages = (np.asarray(side, dtype=np.float64) for side in pairs)
        questions, pages = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (questions, pages))
        figures["alignment"] = ((questions - pages) ** 2).sum(axis=1).mean()
    return {name: float(value) for name, value in figures.items()}
