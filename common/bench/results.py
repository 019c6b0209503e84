"""The rates of a benchmark and the ratios between them, each a median over the rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

PRODUCT_SIDE = 2048
# Backward passes form two products where the forward pass forms one.
PASSES = {"train": 3, "test": 1}


@dataclass
class Case:
    """One job, done in one way and precision, with its measured rates."""

    job: str
    """One of `train`, `test` and `product`, a matrix product."""
    way: str
    """One of `tab`, `ours`, `ready` (ours on ready batches), `input` (our input pipeline alone) and `product`."""
    precision: str
    rates: list[float] = field(default_factory=list)
    """Images (or products) per second, one value for each round."""

    @property
    def name(self) -> str:
        """Job, way and precision, separated by spaces."""
        return f"{self.job} {self.way} {self.precision}"

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return statistics.median(self.rates)


@dataclass
class Result:
    """The measurements of one image size and batch size."""

    image_size: int
    batch_size: int
    train_images: int
    test_images: int
    flops: int
    """Floating-point operations of one image's forward pass."""
    cases: list[Case]

    def case(self, job: str, way: str, precision: str = "fp32") -> Case | None:
        """Return the case of this job, way and precision, or None if it was not measured."""
        return next(
            (case for case in self.cases if (case.job, case.way, case.precision) == (job, way, precision)), None
        )

    def ratio(self, case: Case, way: str) -> float | None:
        """Return how many times as fast a case is as another way of doing the same job.

        The ratio is the median over the rounds of rate(case) / rate(other). The tab is measured in fp32 only; other
        ways are compared in the precision of the case.

        Args:
            case: The case.
            way: The other way.

        Returns:
            The ratio; None if the other way was not measured, or is the case itself.
        """
        other = self.case(case.job, way, "fp32" if way == "tab" else case.precision)
        if other is None or other is case:
            return None
        return statistics.median(one / two for one, two in zip(case.rates, other.rates, strict=True))

    def share_of_peak(self, case: Case) -> float | None:
        """Return the fraction of the arithmetic rate of a large matrix product in the same framework and precision.

        With n = PRODUCT_SIDE it is the median over the rounds of

            (images/s * flops * PASSES[job]) / (products/s * 2 * n^3)

        Args:
            case: The case.

        Returns:
            The fraction; None for the product itself, for input pipelines, and where no product was measured.
        """
        product = self.case("product", "product", case.precision)
        if product is None or case.job not in PASSES or case.way == "input":
            return None
        work = self.flops * PASSES[case.job]
        pairs = zip(case.rates, product.rates, strict=True)
        return statistics.median(images * work / (products * 2 * PRODUCT_SIDE**3) for images, products in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements as plain values for JSON."""
        return {
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "forward_flops_per_image": self.flops,
            "cases": [
                {
                    "job": case.job,
                    "way": case.way,
                    "precision": case.precision,
                    "per_second": case.rate,
                    "per_second_by_round": case.rates,
                    "times_tab": self.ratio(case, "tab"),
                    "times_ready": self.ratio(case, "ready"),
                    "share_of_peak": self.share_of_peak(case),
                }
                for case in self.cases
            ],
        }
