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
from support import losses, networks, stereo, transforms


def synthesise(settings, recordings=None, *, network=None):
    """Return the samples that a notebook makes with these settings [shape=(n,), or (2, n) in stereo].

    Parameters
    ----------
    settings : Settings
        One run: of runs > 1 the first is made.
    recordings : dict or None
        None: the settings' files are loaded.
    network : nn.Module or None
        Takes the place of the settings' network.
    """
    recordings = load_recordings(settings) if recordings is None else recordings
    spectrogram, model, length = optimise_spectrogram(settings, recordings, network=network)
    magnitude = transforms.expand(spectrogram, **settings.compression)
    reconstruction = dict(n_iter=settings.phase_iterations, length=length, seed=settings.seed)
    samples = settings.make_transform().reconstruct(magnitude, **reconstruction)
    if settings.refine_steps == 0 and not settings.stereo:
        return samples
    return refine(settings, recordings, samples, model=model, network=network)


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
        (audiocnn.ContentLoss, settings.content_weight, settings.content_layers),
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
    return audiocnn.insert_losses(network, terms, **images, blend=settings.style_blend)


def result_length(settings, recordings):
    """Return the length of the result in samples: that of the content, or result_duration, or that of the style."""
    if settings.is_transfer:
        return recordings["content"].shape[-1]
    if settings.result_duration is not None:
        return max(1, round(settings.result_duration * settings.sample_rate))
    return recordings["style 1"].shape[-1]


def start_samples(settings, style, *, length, seed):
    """Return the sound that the start is made from: noise with the style's spectrum, or an earlier result."""
    if settings.start in audiocnn.STARTS:
        return audiocnn.matched_noise(style, length=length, seed=seed)
    earlier = transforms.load_audio(settings.start, sample_rate=settings.sample_rate)
    return librosa.util.fix_length(earlier, size=length)


def start_image(settings, samples, images, *, seed):
    """Return the image that the optimisation starts from."""
    spectrogram = transforms.compress(settings.make_transform().magnitude(samples), **settings.compression)
    noise = transforms.to_image(spectrogram, settings.whichChannel).to(settings.device)
    start = settings.start if settings.start in audiocnn.STARTS else "noise"
    limits = dict(lower=settings.lower, upper=settings.upper, mu=settings.mu, sigma=settings.sigma)
    return audiocnn.start_image(start, like=noise, seed=seed, noise=noise, content=images.get("content"), **limits)


def optimise_spectrogram(settings, recordings, *, network=None):
    """Return the optimised spectrogram [shape=(n_bins, n_frames)], the model, and the result's length in samples."""
    transform, seed = settings.make_transform(), settings.seed
    sounds = {name: y.mean(axis=0) if settings.stereo else y for name, y in recordings.items()}
    spectrograms = {
        name: transforms.compress(transform.magnitude(samples), **settings.compression)
        for name, samples in sounds.items()
    }
    images = {
        name: transforms.to_image(s, settings.whichChannel).to(settings.device) for name, s in spectrograms.items()
    }
    network = make_network(settings, images, seed=seed) if network is None else network
    model = insert_losses(settings, images, network, make_terms(settings))
    length = result_length(settings, recordings)
    samples = start_samples(settings, sounds["style 1"], length=length, seed=seed)
    image = start_image(settings, samples, images, seed=seed)
    audiocnn.layer_shapes(network, image)  # raises ValueError where the result is too short for the network
    objective = functools.partial(audiocnn.evaluate, model=model, segment=settings.segment)
    run(image, objective, settings, num_steps=settings.num_steps)
    loudest = max(values.max() for values in spectrograms.values())
    return transforms.from_image(image, settings.whichChannel).clip(0, loudest), model, length


def refine(settings, recordings, samples, *, model, network=None):
    """Return samples after refine_steps on the losses of their own spectrogram; made stereo first if it is set."""
    if settings.stereo:
        samples = widen(settings, recordings, samples, seed=settings.seed)
        model = stereo_model(settings, recordings, network, make_terms(settings))
    samples = torch.tensor(samples, device=settings.device)
    view = view_of(settings, samples.shape[-1])
    objective = functools.partial(audiocnn.evaluate, model=model, segment=settings.segment, view=view)
    run(samples, objective, settings, num_steps=settings.refine_steps)
    return samples.cpu().numpy()


def widen(settings, recordings, samples, *, seed):
    """Make stereo of mono samples, as wide as the content, or as the style."""
    return stereo.widen(samples, like=recordings["content" if settings.is_transfer else "style 1"], seed=seed)


def stereo_model(settings, recordings, network, terms):
    """Return the model that compares left, right, middle and side; a network of None is made from the settings."""
    sounds = {name: torch.from_numpy(samples).to(settings.device) for name, samples in recordings.items()}
    images = {name: view_of(settings, samples.shape[-1])(samples) for name, samples in sounds.items()}
    network = make_network(settings, images, seed=settings.seed) if network is None else network
    return insert_losses(settings, images, network, terms)


def view_of(settings, length):
    """Return the function from samples [shape=(length,) or (2, length)] to their image, with gradients."""
    kinds = dict(which_channel=settings.whichChannel, device=settings.device)
    return transforms.image_function(settings.make_transform(), length, **settings.compression, **kinds)


def run(tensor, objective, settings, *, num_steps):
    """Optimise a tensor in place to the end."""
    for _ in audiocnn.optimise(tensor, objective, num_steps=num_steps, history_size=settings.history_of(tensor)):
        pass
