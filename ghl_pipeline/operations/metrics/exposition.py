"""Metrics as Prometheus reads them. The format is prometheus_client's business; which values there are is not.

Only what is told of each location is written here, at a tenth of its time: the receiver answers webhooks with the same
interpreter. The tests read all of it with prometheus_client.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from ghl_pipeline.operations.metrics import families as f
from ghl_pipeline.operations.metrics.families import Family, Kind
from ghl_pipeline.operations.metrics.readings import Reading, Samples

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Written in one go (6 ms), and the rest after it, in which whoever shares the interpreter gets it.
SAMPLES_AT_ONCE: Final = 5000
REST_SECONDS: Final = 0.005
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram of one set of labels.

    Attributes:
        bounds: upper bounds of the buckets, ascending, in the family's unit.
        counts: of each bucket alone, and of what is above the last bound; one more than the bounds.
        total: of all values.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float

    def cumulative(self) -> list[tuple[str, float]]:
        """Each bound and how many values do not exceed it."""
        rows, sum_so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            sum_so_far += count
            rows.append((bound, float(sum_so_far)))
        return rows


Distributions = Mapping[Family, Mapping[tuple[str, ...], Distribution]]


def exposed(reading: Reading | None, own: Samples | None = None, distributions: Distributions | None = None) -> bytes:
    """The text of a scrape; its content type is `CONTENT_TYPE`.

    Args:
        reading: what the database knows; None when it could not be read.
        own: values of the process that answers.
        distributions: its histograms.
    """
    sums = generate_latest(_Collected([*_of_process(own or {}, distributions or {}), *_of_database(reading)]))
    return b"".join([sums, *_of_each_location(reading)])


class _Collected(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _of_process(own: Samples, distributions: Distributions) -> Iterator[Metric]:
    for family, samples in own.items():
        yield _metric(family, samples)
    for family, by_labels in distributions.items():
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, distribution in by_labels.items():
            histogram.add_metric(labels, distribution.cumulative(), distribution.total)
        yield histogram


def _of_database(reading: Reading | None) -> Iterator[Metric]:
    yield _metric(f.DATABASE_UP, [((), float(reading is not None))])
    if reading is None:
        return
    yield _metric(f.READING_SECONDS, [((), reading.seconds)])
    yield _metric(f.READING_AGE, [((), time.monotonic() - reading.read_at)])
    for family, samples in reading.samples.items():
        if not family.per_location:
            yield _metric(family, samples)


def _of_each_location(reading: Reading | None) -> Iterator[bytes]:
    for family, samples in reading.samples.items() if reading else ():
        if not family.per_location:
            continue
        yield f"# HELP {family.name} {family.meaning}\n# TYPE {family.name} {family.kind}\n".encode()
        names = ",".join(f'{name}="%s"' for name in family.labels)
        line = f"{family.name}{{{names}}} %r\n"
        for at in range(0, len(samples), SAMPLES_AT_ONCE):
            some = samples[at : at + SAMPLES_AT_ONCE]
            yield "".join([line % (*map(_escaped, labels), value) for labels, value in some]).encode()
            time.sleep(REST_SECONDS)


def _escaped(label: str) -> str:
    return label if label.isalnum() else label.translate(_ESCAPES)


def _metric(family: Family, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(family.name, family.meaning, labels=family.labels)
    for labels, value in samples:
        metric.add_metric(labels, value)
    return metric
