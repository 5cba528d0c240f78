"""All steps of the notebooks in one call, from a settings object to samples: for scripts, benchmarks and tests.

The notebooks show the same steps one by one; a test holds both to the same samples.

Conventions
  recordings  dict from "style 1", "style 2" ... and "content" to samples [shape=(n,), or (2, n) in stereo]
  images      dict with the same names to images, see support/transforms.py
"""

import functools

import librosa
import torch

import audiocnn
from support import fast, loops, losses, networks, stereo, transforms
from support.preconditioning import preconditioner

DRAFT_ITERATIONS = 8  # of the phase of a draft: 0.07 s for 5 s of sound, and 8 dB less exact than 200 iterations
DRAWS = 1000  # the refinement's draws of random filters are numbered from here, so that all draws differ


def synthesise(settings, recordings=None, *, network=None):
    """Return the samples that a notebook makes with these settings [shape=(n,), or (2, n) in stereo].

    Parameters
    ----------
    settings : Settings
        One run: of runs > 1 the first is made.
    recordings : dict or None
        None: the settings' files are loaded.
    network : nn.Module or None
        Takes the place of the settings' networks.
    """
    recordings = load_recordings(settings) if recordings is None else recordings
    settings = settings if network is None else settings.of_run(0, redraw=0)
    spectrogram, network, length = optimise_spectrogram(settings, recordings, network=network)
    magnitude = transforms.expand(spectrogram, **settings.compression)
    samples = reconstruct(settings, magnitude, length=length, seed=settings.seed)
    del spectrogram, magnitude  # of 5 minutes: 0.1 GB during the refinement
    if settings.stereo:
        samples = widen(settings, recordings, samples, seed=settings.seed)
    return refine(settings, recordings, samples, network=network) if settings.refine_steps else samples


def load_recordings(settings):
    """Load the styles and the content of the settings."""
    files = {f"style {number}": path for number, path in enumerate(settings.styles, start=1)}
    files |= {"content": settings.CONTENT_FILENAME} if settings.is_transfer else {}
    excerpt = dict(sample_rate=settings.sample_rate, offset=settings.offset, duration=settings.duration)
    return {name: transforms.load_audio(path, **excerpt, mono=not settings.stereo) for name, path in files.items()}


def make_terms(settings):
    """Return the sum that is minimised, a list of (loss, layer, weight), as audiocnn.insert_losses takes it."""
    parts = [
        (audiocnn.STYLE_LOSSES[settings.statistic], settings.style_weight, settings.style_layers_default),
        (losses.CONTENT_LOSSES[settings.content_level], settings.content_weight, settings.content_layers),
        (losses.RhythmLoss, settings.rhythm_weight, settings.rhythm_layers),
        (losses.DiversityLoss, settings.diversity_weight, settings.diversity_layers),
        (audiocnn.BoundLoss, settings.reg_weight * settings.boundopt, {"input": 1.0}),
    ]
    return [(loss, layer, weight * share) for loss, weight, layers in parts for layer, share in layers.items()]


def make_network(settings, images, *, seed):
    """Return the network of the settings for these images: band networks, or a CNN."""
    if settings.use_style_net:
        raise ValueError(
            "use_style_net=True: pass the network too, synthesise(settings, network=...), or set it to False"
        )
    image, channels = next(iter(images.values())), settings.whichChannel
    if settings.recipe == "bands":
        bands = band_parameters(settings)
        network = audiocnn.band_networks(settings.make_transform().frequencies, **bands, seed=seed)
    else:
        parameters = make_parameters(settings, image)
        for each in images.values():
            networks.check_fit(parameters, channels, each)
        network = networks.build_network(parameters, model_path=settings.model_path, seed=seed)
    return network.to(settings.device)


def band_parameters(settings):
    """Return the settings of the band networks, keyword arguments of audiocnn.band_networks."""
    return {name: getattr(settings, name) for name in ("widths", "filters", "pattern_share", "dilation")}


def make_parameters(settings, image):
    """Return the parameters of the CNN: from the file param_pkl, or as typed, with the image's shape filled in."""
    if settings.param_pkl is not None:
        return networks.load_parameters(settings.param_pkl)
    names = ("l1channels", "l2channels", "l3channels", "kernelsize", "n_classes")
    parameters = {name: getattr(settings, name) for name in names}
    for name, size in zip(("in_channels", "in_height", "in_width"), image.shape[1:], strict=True):
        parameters[name] = getattr(settings, name) or size
    return parameters | dict(orientation=settings.orientation or settings.whichChannel)


def insert_losses(settings, images, network, terms):
    """Return the model: a network with the losses of the terms inserted, for images by name."""
    styles = [image for name, image in images.items() if name.startswith("style")]
    images = dict(style=styles, content=images.get("content"))
    network = loops.closed_network(network) if settings.loop else network
    model = audiocnn.insert_losses(network, terms, **images, blend=settings.style_blend)
    for chain in model.values():
        for loss in chain.children():
            if isinstance(loss, losses.FreeContentLoss) and chain.overlap is not None:
                loss.count_edges(images["content"].shape[3])
    return model


def result_length(settings, recordings):
    """Return the length of the result in samples: that of the content, or result_duration, or that of the style.

    A loop has a whole number of hops.
    """
    if settings.is_transfer:
        return recordings["content"].shape[-1]
    length = recordings["style 1"].shape[-1]
    if settings.result_duration is not None:
        length = max(1, round(settings.result_duration * settings.sample_rate))
    return loops.circle_length(length, settings.K_HOP) if settings.loop else length


def start_samples(settings, style, *, length, seed):
    """Return the sound that the start is made from: noise with the style's spectrum, or an earlier result."""
    if settings.start in audiocnn.STARTS:
        return audiocnn.matched_noise(style, length=length, seed=seed)
    earlier = transforms.load_audio(settings.start, sample_rate=settings.sample_rate)
    return librosa.util.fix_length(earlier, size=length)


def start_image(settings, samples, images, *, seed):
    """Return the image that the optimisation starts from."""
    transform = settings.make_transform()
    magnitude = loops.magnitude(samples, transform) if settings.loop else transform.magnitude(samples)
    spectrogram = transforms.compress(magnitude, **settings.compression)
    noise = transforms.to_image(spectrogram, settings.whichChannel).to(settings.device)
    start = settings.start if settings.start in audiocnn.STARTS else "noise"
    limits = dict(lower=settings.lower, upper=settings.upper, mu=settings.mu, sigma=settings.sigma)
    return audiocnn.start_image(start, like=noise, seed=seed, noise=noise, content=images.get("content"), **limits)


def make_images(settings, recordings):
    """Return the spectrograms of the recordings [shape=(n_bins, n_frames)] and their images, two dicts."""
    transform = settings.make_transform()
    spectrograms = {
        name: transforms.compress(transform.magnitude(y.mean(axis=0) if y.ndim == 2 else y), **settings.compression)
        for name, y in recordings.items()
    }
    images = {
        name: transforms.to_image(s, settings.whichChannel).to(settings.device) for name, s in spectrograms.items()
    }
    return spectrograms, images


def optimise_spectrogram(settings, recordings, *, network=None):
    """Return the optimised spectrogram [shape=(n_bins, n_frames)], the network, and the result's length in samples."""
    spectrograms, images = make_images(settings, recordings)
    make = functools.partial(make_network, settings, images)
    network = make(seed=settings.seed) if network is None else network
    length = result_length(settings, recordings)
    style = recordings["style 1"].mean(axis=0) if settings.stereo else recordings["style 1"]
    samples = start_samples(settings, style, length=length, seed=settings.seed)
    image = start_image(settings, samples, images, seed=settings.seed)
    audiocnn.layer_shapes(network, image)  # raises ValueError where the result is too short for the network
    model_of = models_by_draw(settings, images, make_terms(settings), network, make)
    for _ in descend(image, model_of, settings, num_steps=settings.num_steps):
        pass
    return spectrogram_of(settings, image, spectrograms), network, length


def reconstruct_image(settings, image, spectrograms, *, length, seed, n_iter=None):
    """Find samples [shape=(length,)] with the magnitude of an optimised image, see spectrogram_of and reconstruct."""
    magnitude = transforms.expand(spectrogram_of(settings, image, spectrograms), **settings.compression)
    return reconstruct(settings, magnitude, length=length, seed=seed, n_iter=n_iter)


def spectrogram_of(settings, image, spectrograms):
    """Return the spectrogram [shape=(n_bins, n_frames)] of an optimised image, at most as loud as the inputs.

    A few bins that are louder would make all others soft.
    """
    loudest = max(spectrogram.max() for spectrogram in spectrograms.values())
    return transforms.from_image(image, settings.whichChannel).clip(0, loudest)


def refine(settings, recordings, samples, *, network):
    """Return samples after refine_steps on the losses of their own spectrogram."""
    images = stereo_images(settings, recordings) if settings.stereo else make_images(settings, recordings)[1]
    samples = torch.tensor(samples, device=settings.device)
    make = functools.partial(make_network, settings, images)
    model_of = models_by_draw(settings, images, make_terms(settings), network, make)
    view = view_of(settings, samples.shape[-1])
    for _ in descend(samples, model_of, settings, num_steps=settings.refine_steps, view=view):
        pass
    return samples.cpu().numpy()


def models_by_draw(settings, images, terms, network, make, *, run=0):
    """Return the function from the number of a draw of random filters to its model.

    Draw 0 has the network; the others have networks that make returns, a function of a seed.
    """

    def model_of(draw):
        drawn = make(seed=settings.seed + run + 10**6 * draw) if draw else network
        return insert_losses(settings, images, drawn, terms)

    return model_of


def descend(tensor, model_of, settings, *, num_steps, done=0, view=None, start=None):
    """Optimise a tensor in place, up to num_steps of which some are done; yield the losses of each step.

    After every settings.steps_of_draw steps, L-BFGS begins anew, with a model of new random filters.

    Parameters
    ----------
    model_of : function
        From the number of a draw to a model, see models_by_draw. The draws of samples are numbered from DRAWS.
    view : function or None
        For samples: the function from the samples to their image, see view_of.
    start : dict or None
        If empty, gets the losses of the tensor before the first step, by name.
    """
    length, history_size = settings.steps_of_draw or max(1, num_steps), settings.history_of(tensor)
    while done < num_steps:
        draw, past = divmod(done, length)
        model = model_of(DRAWS + draw if settings.steps_of_draw and view else draw)
        seen = closed_view(settings, tensor, model, view) if settings.loop else view
        objective = functools.partial(audiocnn.evaluate, model=model, segment=settings.segment, view=seen)
        objective = fast.recorded(objective, model, tensor)
        objective = _noting(objective, start) if start == {} else objective
        changes = dict(precondition=precondition_of(settings, tensor)) if view else {}
        left = min(length - past, num_steps - done)
        yield from audiocnn.optimise(tensor, objective, num_steps=left, history_size=history_size, **changes)
        done += left
        del model, objective, seen, changes  # they hold the styles' features, and the next draw's come before they go


def _noting(objective, start):
    # The first evaluation is that of the tensor before any step, so that its losses cost no evaluation of their own.
    def noted(tensor):
        losses, gradient = objective(tensor)
        if not start:
            values = {name: float(loss) for name, loss in losses.items()}
            start.update(values | {"total": sum(values.values())})
        return losses, gradient

    return noted


def losses_of_noise(settings, samples, images, network, terms):
    """Return the content's losses of noise, by name, if the start is the content, where these losses are 0.

    samples : np.ndarray
        Of the noise, see start_samples.
    """
    terms = [term for term in terms if term[0].compares == "content" and term[2]]
    if settings.start != "content" or not terms:
        return {}
    noise = start_image(settings.of_run(0, start="noise"), samples, images, seed=settings.seed)
    losses, _ = audiocnn.evaluate(noise, insert_losses(settings, images, network, terms), segment=settings.segment)
    return {name: float(loss) for name, loss in losses.items()}


def closed_view(settings, tensor, model, view):
    """Return the function from an image, or from samples if there is a view, to their image as a loop."""
    n_frames = (tensor.shape[-1] - 1) if view is None else tensor.shape[-1] // settings.K_HOP
    more = max(chain.overlap or 0 for chain in model.values())
    for chain in model.values():  # a short filter that saw all frames would count the first ones twice
        chain.n_frames = n_frames + (chain.overlap or 0)
    if view is None:
        return loops.image_view(tensor, more)
    reach, of_length = settings.make_transform().reach, functools.partial(view_of, settings)
    return loops.samples_view(tensor, more, hop_length=settings.K_HOP, reach=reach, view_of=of_length)


def hear_image(result, settings, spectrograms, *, length):
    """Return a quick draft of the sound [shape=(length,)] of a result's image; None if settings.draft_sound is off."""
    if not settings.draft_sound:
        return None
    quick = dict(seed=settings.seed + result.run, n_iter=min(DRAFT_ITERATIONS, settings.phase_iterations))
    return reconstruct_image(settings, result.image, spectrograms, length=length, **quick)


def hear_samples(result, settings):
    """Return a result's samples [shape=(n,) or (2, n)] during their refinement; None if settings.draft_sound is off."""
    return result.samples.cpu().numpy() if settings.draft_sound else None


def reconstruct(settings, magnitude, *, length, seed, n_iter=None):
    """Find samples [shape=(length,)] with a magnitude [shape=(n_bins, n_frames)]; those of a loop have no seam.

    n_iter : int or None
        Iterations; None: settings.phase_iterations.
    """
    transform, n_iter = settings.make_transform(), settings.phase_iterations if n_iter is None else n_iter

    def part(magnitude, length):
        return transform.reconstruct(magnitude, n_iter=n_iter, length=length, seed=seed)

    return loops.reconstruct(magnitude, part, hop_length=settings.K_HOP) if settings.loop else part(magnitude, length)


def precondition_of(settings, samples):
    """Return the map that makes the refinement of samples short, see support/preconditioning.py."""
    n_fft = settings.N_FFT if settings.transform == "stft" else 4 * settings.K_HOP
    how = dict(n_fft=n_fft, hop_length=settings.K_HOP, **settings.compression)
    if not settings.loop:
        return preconditioner(samples, **how)
    around = -(-n_fft // settings.K_HOP) * settings.K_HOP
    return loops.preconditioner(samples, functools.partial(preconditioner, **how), around=around)


def widen(settings, recordings, samples, *, seed):
    """Make stereo of mono samples, as wide as the content, or as the style."""
    return stereo.widen(samples, like=recordings["content" if settings.is_transfer else "style 1"], seed=seed)


def stereo_images(settings, recordings):
    """Return the images that compare left, right, middle and side."""
    sounds = {name: torch.from_numpy(samples).to(settings.device) for name, samples in recordings.items()}
    return {name: view_of(settings, samples.shape[-1])(samples) for name, samples in sounds.items()}


def view_of(settings, length):
    """Return the function from samples [shape=(length,) or (2, length)] to their image, with gradients."""
    kinds = dict(which_channel=settings.whichChannel, device=settings.device)
    return transforms.image_function(settings.make_transform(), length, **settings.compression, **kinds)
