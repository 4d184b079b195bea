"""Probabilities and ranges of the clip generator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipConfig:
    """How often synthetic clips show what: a probability of 0 switches a thing off, 1 shows it wherever it fits."""

    moving_photo_prob: float = 0.35  # of clips: the targets are the photograph's own objects; else composites
    lift_prob: float = 0.5  # of moving photographs: one object is cut out of the background and moves by itself
    visible_at_start_prob: float = 0.9  # other clips may show their targets later only
    paste_prob: float = 0.4  # of single images: cut-outs pasted onto the photograph

    # What is pasted.
    procedural_prob: float = 0.10  # of bodies: shapes of no category
    solid_prob: float = 0.25  # of bodies: lit solids that turn out of the image plane
    model_prob: float = 0.7  # of solids: a modelled thing, where there are models
    joint_prob: float = 0.6  # of cut-outs that have limbs: they swing
    tilt_prob: float = 0.5  # of other cut-outs: they turn like a card, with perspective
    deform_prob: float = 0.5
    max_deform: float = 0.08  # share of the object's sides
    own_photo_prob: float = 0.15  # paste an object of the backdrop onto its own photograph
    same_photo_prob: float = 0.4  # of further cut-outs: from a photograph that the scene has already
    backdrop_target_prob: float = 0.2
    standing_prob: float = 0.2  # of targets: only the camera moves them
    min_target_share: float = 0.012  # of the frame's area
    max_target_share: float = 0.30
    max_aspect: float = 1.78

    # What happens to it.
    lookalike_prob: float = 0.35  # of targets: one to three doubles
    crossing_prob: float = 0.5  # of doubles: the path crosses the target's; else one of its own
    swap_prob: float = 0.3  # of targets with a double: the two change places, as in a shell game
    occluder_prob: float = 0.4
    absence_prob: float = 0.3  # of clips: targets leave, are hidden or gone, or the clip cuts to another scene
    cut_share: float = 0.4  # of these: cuts
    return_prob: float = 0.4  # of absences: the target comes back before the clip ends
    motion: float = 0.5  # typical factor on all motion; at 0.5 objects leave their first mask about as fast as on DAVIS
    motion_spread: float = 0.4  # of its logarithm between clips
    race_prob: float = 0.1  # of paths: as far as the frame is wide
    growth_prob: float = 0.12  # of paths: the size changes up to three times

    # How it is seen.
    parallax_prob: float = 0.5  # of photographs: near parts move farther than far ones
    zoom_prob: float = 0.15  # of cameras: about twice as near or far within the clip
    shake_prob: float = 0.15  # of cameras: shaky, as in a hurried hand
    light_prob: float = 0.3  # of clips: light and shade wander over the frame
    shadow_prob: float = 0.4  # of clips: objects cast shadows
    blur_prob: float = 0.3  # of clips: what moves fast is smeared
