"""Towers from `transformers`: CLIP, Chinese-CLIP, SigLIP, SigLIP2, X-CLIP, ViT, BERT and RoBERTa."""

from cope.towers.hub.opening import open_text as open_text
from cope.towers.hub.opening import open_vision as open_vision
from cope.towers.hub.text import HubText as HubText
from cope.towers.hub.tower import HubTower as HubTower
