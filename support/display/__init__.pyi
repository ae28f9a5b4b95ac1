from . import animation as animation
from . import explorer as explorer
from . import own_images as own_images
from . import plots as plots
from . import png_folder as png_folder
from . import progress as progress
from . import report as report
from . import summaries as summaries
