from . import collapse as collapse
from . import fitted_prior as fitted_prior
from . import generation as generation
from . import latents as latents
from . import likelihood as likelihood
from . import metrics as metrics
from . import own_images as own_images
from . import scores as scores
