"""What a model is assessed on: samples from folders, zips, arrays, idx files, the user's code, or the embedded digits.

    from vambrace import data
    batches = data.load("val/", limit=1000)
    batches = data.from_arrays(inputs, labels, contract=InputContract(bounds=(0, 1)))
    batches = data.from_dataset(dataset, contract=InputContract(bounds=(0, 1)))
    batch = batches.read(range(64))       # batch.inputs, batch.labels, batch.ids, batch.hashes, batch.names

Reading is safe: nothing is unpickled, unpacked to disk or written, and sizes are capped before memory is taken.
"""

from vambrace.data.arrays import from_arrays
from vambrace.data.batches import Batch, Batches, sample_id
from vambrace.data.factory import from_dataset
from vambrace.data.loaded import Loaded
from vambrace.data.loading import load
from vambrace.data.select import Subset, subset

__all__ = ["Batch", "Batches", "Loaded", "Subset", "from_arrays", "from_dataset", "load", "sample_id", "subset"]
