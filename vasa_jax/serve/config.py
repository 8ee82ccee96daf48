"""What a server is started with."""

from __future__ import annotations

import dataclasses

from vasa_jax.core.errors import UserError
from vasa_jax.generate.live.engine import LiveConfig
from vasa_jax.serve.access import check_reach
from vasa_jax.serve.door import Limits

START_S = 5.0  # from the connection to the start message, in which a token may be
UPLOAD_S = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Who may use a server, and how much."""

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    origins: tuple[str, ...] = ()  # besides the server's own
    public_url: str = ""  # what people use where there is a proxy before the server
    proxies: tuple[str, ...] = ()  # that may speak for others, besides those of this machine
    limits: Limits = Limits()  # of connections
    start_s: float = START_S
    heartbeat_s: float = 15.0  # no proxy may find a session idle
    session_s: float = 1800.0
    idle_s: float = 300.0  # without sound
    max_side: int = 640  # px of a portrait
    ask_consent: bool = True  # portraits come with a word on who allowed them, or are refused
    upload_s: float = UPLOAD_S
    live: LiveConfig = LiveConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UserError(f"--port: {self.port} is outside 0 to 65535")
        check_reach(self.host, self.token)
