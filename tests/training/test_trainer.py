"""Training: the maze, the collection, and that what is trained is what is played."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from glassworld.cli import main
from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.sampling import FlowSchedule
from glassworld.errors import CheckpointError, InputError
from glassworld.training.data.latents import encode_play, fold
from glassworld.training.data.segments import at_rest, draw
from glassworld.training.export import export_world
from glassworld.training.muon import orthogonal
from glassworld.training.objectives.history_augmentation import Shares, draw_lesson, redrawn
from glassworld.training.objectives.transformer import DiTRecipe, losses
from glassworld.training.objectives.vae import VAE, VAERecipe
from glassworld.training.objectives.world_model import (
    Noisy,
    Player,
    WorldModel,
    forward,
    training_noise,
)
from glassworld.training.recipes import preset
from glassworld.training.trainer import Run, Schedule, generator
from glassworld.training.weights.warm_start import check_start, start_model, start_vae
from tests.support.small import SMALL, latent_play, small_model


def test_what_is_learned_is_what_was_played() -> None:
    """Repeating the last step of play in the training forward gives what the caches gave."""
    model, random = small_model(), generator(0, 0)
    stretch = draw(latent_play(), 2, 0, 5, random)
    shown: list[torch.Tensor] = []
    player = Player(model, stretch, SMALL.sampler)
    with model.dit.register_forward_pre_hook(lambda _, given: shown.append(given[0][:, :16])):
        player.play(5, random)
    passes = len(SMALL.sampler) + 1  # the last of a block fills the caches
    last = torch.cat(shown[passes - 2 :: passes], 2)
    sigmas = torch.full((2, 15), SMALL.sampler[-1].sigma)
    noisy = Noisy(last, 1000 * sigmas, sigmas)
    with torch.no_grad():
        answer = forward(model, stretch, torch.cat(player.made[:4], 2), 0, noisy)
    made = torch.cat(player.made, 2)
    torch.testing.assert_close(noisy.x0(answer.flow), made, atol=1e-4, rtol=1e-4)


def test_what_is_learned_from_inside_an_episode_is_what_was_played() -> None:
    """Blocks that are given see no more before them than in training: nothing."""
    model, random = small_model(), generator(0, 0)
    stretch = draw(latent_play(), 2, 4, 3, random)
    player = Player(model, stretch, SMALL.sampler)
    player.given(2)
    player.play(1, random)
    sigmas = torch.full((2, 3), SMALL.sampler[-1].sigma)
    noisy = Noisy(player.inputs[0][-1], 1000 * sigmas, sigmas)
    with torch.no_grad():
        answer = forward(model, stretch, stretch.latents[:, :, :6], 2, noisy)
    torch.testing.assert_close(noisy.x0(answer.flow), player.made[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("start", "known"), [(0, 0), (2, 3)])
def test_history_is_redrawn_where_the_past_is_known(start: int, known: int) -> None:
    """A flow of nothing leaves the noised truth as it is."""
    model, stretch = small_model(), draw(latent_play(), 2, start, 4, generator(0, 0))
    torch.nn.init.zeros_(model.dit.head.head.weight)
    torch.nn.init.zeros_(model.dit.head.head.bias)
    history = redrawn(model, stretch, generator(0, 1))
    truth = stretch.latents[:, :, :9]
    noised = training_noise(truth[:, :, known:], FlowSchedule(), generator(0, 1))
    torch.testing.assert_close(history, torch.cat([truth[:, :, :known], noised.x], 2))


@pytest.mark.parametrize("begin", [0.0, 1.0])
def test_a_played_history_is_the_truth_and_then_the_model_s_own(begin: float) -> None:
    shares = Shares(begin=begin, redrawn=0, played=1, rested=0)
    for seed in range(6):
        stretch, history, first = draw_lesson(
            small_model(), latent_play(), 2, shares, SMALL.sampler, generator(0, seed)
        )
        assert history.shape[2] == stretch.latents.shape[2] - 3
        blocks = stretch.latents.shape[2] // 3
        assert 1 <= blocks - first <= 3
        own = [
            bool((history - stretch.latents[:, :, :-3])[:, :, 3 * i : 3 * i + 3].any())
            for i in range(blocks - 1)
        ]
        assert own == sorted(own)  # from some block on, all are its own
        assert own[-1]
        assert begin or stretch.start


def test_a_lesson_at_rest_holds_a_settled_view_and_no_key() -> None:
    play = latent_play()
    play.keyboard[:, :40] = 0
    play.mouse[:, :40] = 0
    stretch = at_rest(play, 3, 20, generator(0, 0))
    assert stretch is not None
    assert stretch.latents.shape == (3, 16, 60, 8, 12)
    assert (stretch.latents == stretch.latents[:, :, :1]).all()
    settled = play.latents[:, 7:10].float().flatten(0, 1)
    for view in stretch.latents[:, :, 0]:
        assert (view == settled).flatten(1).all(1).any()
    assert not stretch.windows.keyboard.any()
    assert at_rest(latent_play(), 3, 20, generator(0, 0)) is None


def test_folding_statistics_changes_latents_and_nothing_else() -> None:
    torch.manual_seed(0)
    vae = VAE(VAERecipe(width=4).spec)
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.encoder(pixels)
        shown = vae.decoder(before)
        shift, scale = torch.randn(16), torch.rand(16) + 0.5
        fold(vae, shift, scale)
        after = vae.encoder(pixels)
        along = (1, 16, 1, 1, 1)
        torch.testing.assert_close(
            after, (before - shift.view(along)) / scale.view(along), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(vae.decoder(after), shown, atol=1e-4, rtol=1e-4)


def test_an_exported_world_loads_plays_and_keeps_its_latents(tmp_path: Path) -> None:
    vae = VAE(VAERecipe(width=8).spec)
    export_world(vae, small_model(), SMALL, tmp_path)
    world = load_world(tmp_path)
    pixels = torch.rand(1, 3, 5, 64, 96) * 2 - 1
    with torch.no_grad():
        difference = (world.networks.encoder(pixels) - vae.encoder(pixels)).abs().max()
    assert difference < 0.05  # half precision
    session = world.start(Image.new("RGB", (96, 64), "brown"))
    action = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.1))
    assert [session.step(action).shape for _ in range(2)] == [(9, 64, 96, 3), (12, 64, 96, 3)]


def test_a_training_starts_from_an_exported_world(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, model = VAE(VAERecipe(width=8).spec), small_model()
    export_world(vae, model, SMALL, tmp_path)
    again = VAE(VAERecipe(width=8).spec)
    start_vae(again, tmp_path)
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(again.encoder(pixels), vae.encoder(pixels), atol=0.05, rtol=0)
        latents = vae.encoder(pixels)
        torch.testing.assert_close(again.decoder(latents), vae.decoder(latents), atol=0.05, rtol=0)
    other = WorldModel(SMALL.spec, SMALL.vision)
    start_model(other, tmp_path)
    for exported in ("dit", "vision"):
        for name, weight in getattr(model, exported).state_dict().items():
            found = getattr(other, exported).state_dict()[name]
            torch.testing.assert_close(found, weight, atol=1e-2, rtol=1e-2)


def test_a_training_refuses_a_world_of_another_size(tmp_path: Path) -> None:
    export_world(VAE(VAERecipe(width=8).spec), small_model(), SMALL, tmp_path)
    with pytest.raises(CheckpointError, match="another size"):
        start_vae(VAE(VAERecipe(width=4).spec), tmp_path)
    recipe = DiTRecipe()
    with pytest.raises(CheckpointError, match="another size"):
        start_model(WorldModel(recipe.spec, recipe.vision), tmp_path)


@pytest.mark.parametrize(
    ("start", "said"),
    [("missing", "missing/inference.yaml: no such configuration"), ("small", "another size")],
)
def test_the_command_looks_at_the_start_before_anything_else(
    tmp_path: Path, start: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small").mkdir()
    export_world(VAE(VAERecipe(width=4).spec), small_model(), SMALL, tmp_path / "small")
    flags = ["--preset", "smoke", "--output", str(tmp_path / "run")]
    assert main(["train", *flags, "--start", str(tmp_path / start)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_start_that_fits_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fitting = replace(preset("smoke"), dit=SMALL)
    export_world(VAE(fitting.vae.spec), small_model(), SMALL, tmp_path)
    check_start(tmp_path, fitting)
    deeper = VAE(replace(fitting.vae, residual_blocks=2).spec)
    export_world(deeper, small_model(), SMALL, tmp_path)
    with pytest.raises(CheckpointError, match="its VAE has another size"):
        check_start(tmp_path, fitting)


def test_orthogonal_brings_singular_values_near_one() -> None:
    random = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=random)))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    def train(folder: Path, until: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        run = Run(folder, model, Schedule(steps=6, rate=0.1, warm_up=2))
        run.resume()
        for step in run.steps("lines", until, every=1):
            x = torch.randn(8, 3, generator=generator(0, step))
            run.learn((model(x) - x.sum(1, keepdim=True)).square().mean())
        return model.weight.detach().clone()

    whole = train(tmp_path / "whole", 6)
    train(tmp_path / "parts", 3)
    torch.testing.assert_close(train(tmp_path / "parts", 6), whole)


def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    run = Run(tmp_path, torch.nn.Linear(2, 2), Schedule(1, 0.1))
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        run.resume()
    assert (tmp_path / "state.pt").read_bytes() == b"not a checkpoint"


def test_a_damaged_shard_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    from glassworld.training.data.collect import load

    shard = tmp_path / "shard-00000.safetensors"
    shard.write_bytes(b"cut short")
    with pytest.raises(InputError, match="shard-00000"):
        load(shard)


def test_damaged_latents_are_encoded_anew(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    from glassworld.training.data.collect import Episodes

    rng = np.random.default_rng(0)
    episodes = Episodes(
        rng.integers(0, 256, (2, 5, 64, 96, 3), dtype=np.uint8),
        *(rng.normal(size=(2, 5, width)).astype(np.float32) for width in (4, 2, 3)),
    )
    save_file(episodes._asdict(), tmp_path / "shard-00000.safetensors")
    vae = VAE(VAERecipe(width=4).spec)
    first = encode_play(vae, tmp_path, tmp_path / "latents")
    encoded = tmp_path / "latents" / "shard-00000.safetensors"
    cut = tmp_path / "cut"  # a file of its own: what was read is mapped from the first
    cut.write_bytes(encoded.read_bytes()[:1000])
    cut.replace(encoded)
    again = encode_play(vae, tmp_path, tmp_path / "latents")
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_measures_know_turns_and_sameness() -> None:
    from glassworld.training.eval.metrics import psnr, ssim, turn_pixels

    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (64, 200, 3), dtype=np.uint8)
    panorama = np.stack([wide[:, 4 * i : 4 * i + 96] for i in range(5)])
    assert turn_pixels(panorama) == 16
    assert turn_pixels(panorama[::-1]) == -16
    assert psnr(panorama, panorama) == 60
    assert ssim(panorama, panorama) == pytest.approx(1)
    assert ssim(panorama[:1], panorama[1:2]) < 0.2


def test_the_smoke_preset_makes_a_world_and_repeats_nothing(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    pytest.importorskip("matplotlib")
    from glassworld.training.pipeline import train_world
    from glassworld.training.recipes import Folders

    folders = Folders(tmp_path)
    train_world(preset("smoke"), folders)
    world = load_world(folders.world)
    picture = next((folders.world / "pictures").glob("*.png"))
    assert world.generate(picture, num_latent_frames=6).frames.shape == (21, 64, 96, 3)
    assert (folders.transformer / "curve.png").exists()
    with Image.open(folders.transformer / "samples.png") as samples:
        assert samples.size == (12 * 96, 4 * 2 * 64)
    encoded_with = torch.load(folders.vae / "normalised.pt", weights_only=True)
    taught = torch.load(folders.decoder / "state.pt", weights_only=True)["average"]
    name = "decoder.middle.residual1.conv1.weight"
    assert not torch.equal(taught[name], encoded_with[f"decoder.{name}"])
    name = "stages.0.conv1.weight"
    encoder = world.networks.encoder.encoder.state_dict()
    assert torch.equal(encoder[name], encoded_with[f"encoder.encoder.{name}"].half().float())
    kept = (folders.latents / "shard-00000.safetensors").stat().st_mtime_ns
    train_world(preset("smoke"), folders)
    assert (folders.latents / "shard-00000.safetensors").stat().st_mtime_ns == kept


def test_first_blocks_are_learned_beside_every_lesson() -> None:
    """With lessons that never begin an episode, only first blocks are told the start picture."""
    model, play = small_model(), latent_play()
    recipe = replace(SMALL, batch=2, openings=5, shares=Shares(0, 0, 0, 0))
    begun = 0

    def look(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal begun
        begun += int(given[0][:, 16, 0].flatten(1).all(1).sum())

    with model.dit.register_forward_pre_hook(look):
        loss, lost = losses(model, play, recipe, generator(0, 0))
    assert begun == 5
    (loss + lost).backward()
    assert model.dit.head.head.weight.grad is not None
