from . import locks as locks
from . import run_folder as run_folder
from . import saves as saves
from . import validation as validation
from . import weights as weights
from . import weights_file as weights_file
