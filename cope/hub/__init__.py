"""Towers from `transformers`: CLIP, Chinese-CLIP, SigLIP, SigLIP2, X-CLIP, ViT, BERT and RoBERTa."""

from cope.hub.opening import open_text as open_text
from cope.hub.opening import open_vision as open_vision
from cope.hub.text import HubText as HubText
from cope.hub.tower import HubTower as HubTower
