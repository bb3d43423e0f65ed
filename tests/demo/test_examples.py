"""The examples are agents that the API takes, each with a caller who has something to say to every question."""

import json
from pathlib import Path

import pytest

from demo.example import load
from local.errors import CannotStart
from pi_voice.agents import AgentSpec
from pi_voice.catalog import checked_spec
from pi_voice.sessions import NewSession, Terms

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in ROOT.glob("examples/*.json") if not path.name.endswith(".caller.json"))
