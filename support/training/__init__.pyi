from . import augmentation as augmentation
from . import cluster as cluster
from . import distribution as distribution
from . import optimizer as optimizer
from . import run as run
from . import schedule as schedule
from . import signals as signals
from . import steps as steps
