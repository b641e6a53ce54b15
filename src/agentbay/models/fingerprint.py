"""Browser fingerprints: what a page can find out about a browser and its machine.

The field names are those of the JSON, which other tools write.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import attrs

from .._lazy_attrs import define, field

_DEFAULT_PROCESSORS = 8


@define(slots=False)
class ScreenFingerprint:
    """The screen and the window, in pixels."""

    availHeight: int  # noqa: N815
    availWidth: int  # noqa: N815
    availTop: int  # noqa: N815
    availLeft: int  # noqa: N815
    colorDepth: int  # noqa: N815
    height: int
    pixelDepth: int  # noqa: N815
    width: int
    devicePixelRatio: float  # noqa: N815
    pageXOffset: int  # noqa: N815
    pageYOffset: int  # noqa: N815
    innerHeight: int  # noqa: N815
    outerHeight: int  # noqa: N815
    outerWidth: int  # noqa: N815
    innerWidth: int  # noqa: N815
    screenX: int  # noqa: N815
    clientWidth: int  # noqa: N815
    clientHeight: int  # noqa: N815
    hasHDR: bool  # noqa: N815


@define(slots=False)
class Brand:
    """A name and version by which a browser introduces itself."""

    brand: str = ""
    version: str = ""


@define(slots=False)
class UserAgentData:
    """What `navigator.userAgentData` tells."""

    brands: list[Brand] = field(factory=list)
    mobile: bool = False
    platform: str = ""
    architecture: str = ""
    bitness: str = ""
    fullVersionList: list[Brand] = field(factory=list)  # noqa: N815
    model: str = ""
    platformVersion: str = ""  # noqa: N815
    uaFullVersion: str = ""  # noqa: N815


@define(slots=False)
class ExtraProperties:
    """Further properties of the browser."""

    vendorFlavors: list[str] = field(factory=list)  # noqa: N815
    isBluetoothSupported: bool = False  # noqa: N815
    globalPrivacyControl: Any = None  # noqa: N815
    pdfViewerEnabled: bool = True  # noqa: N815
    installedApps: list[Any] = field(factory=list)  # noqa: N815


@define(slots=False)
class NavigatorFingerprint:
    """What `navigator` tells."""

    userAgent: str = ""  # noqa: N815
    userAgentData: UserAgentData = field(factory=UserAgentData)  # noqa: N815
    doNotTrack: str = ""  # noqa: N815
    appCodeName: str = ""  # noqa: N815
    appName: str = ""  # noqa: N815
    appVersion: str = ""  # noqa: N815
    oscpu: str = ""
    webdriver: str = ""
    language: str = ""
    languages: list[str] = field(factory=list)
    platform: str = ""
    deviceMemory: int | None = None  # noqa: N815
    hardwareConcurrency: int = _DEFAULT_PROCESSORS  # noqa: N815
    product: str = ""
    productSub: str = ""  # noqa: N815
    vendor: str = ""
    vendorSub: str = ""  # noqa: N815
    maxTouchPoints: int | None = None  # noqa: N815
    extraProperties: ExtraProperties = field(factory=ExtraProperties)  # noqa: N815


@define(slots=False)
class VideoCard:
    """What WebGL tells of the graphics card."""

    renderer: str = "Unknown"
    vendor: str = "Unknown"


@define(slots=False)
class Fingerprint:
    """A whole fingerprint."""

    screen: ScreenFingerprint
    navigator: NavigatorFingerprint
    videoCodecs: dict[str, str] = field(factory=dict)  # noqa: N815
    audioCodecs: dict[str, str] = field(factory=dict)  # noqa: N815
    pluginsData: dict[str, str] = field(factory=dict)  # noqa: N815
    battery: dict[str, str] | None = None
    videoCard: VideoCard = field(factory=VideoCard)  # noqa: N815
    multimediaDevices: list[str] = field(factory=list)  # noqa: N815
    fonts: list[str] = field(factory=list)
    mockWebRTC: bool = False  # noqa: N815
    slim: bool | None = None


@define(slots=False)
class FingerprintFormat:
    """A fingerprint, and the HTTP headers that go with it."""

    fingerprint: Fingerprint
    headers: dict[str, str]

    @classmethod
    def load(cls, data: Mapping[str, Any] | str) -> FingerprintFormat:
        """Read a fingerprint from a dict or its JSON text.

        Raises:
            ValueError: It is neither, or has not the shape of a fingerprint.
        """
        if isinstance(data, str):
            data = json.loads(data)
        if not isinstance(data, Mapping) or not data:
            raise ValueError(f"data must be a dict or JSON text of a fingerprint, not {data!r:.80}")
        fields, headers = data.get("fingerprint"), data.get("headers") or {}
        if not isinstance(fields, Mapping):
            raise ValueError("data has no 'fingerprint'")
        return cls(_read_fingerprint(fields), dict(headers))

    @classmethod
    def create(
        cls,
        screen: ScreenFingerprint,
        navigator: NavigatorFingerprint,
        video_card: VideoCard,
        headers: dict[str, str],
        video_codecs: dict[str, str] | None = None,
        audio_codecs: dict[str, str] | None = None,
        plugins_data: dict[str, str] | None = None,
        battery: dict[str, str] | None = None,
        multimedia_devices: list[str] | None = None,
        fonts: list[str] | None = None,
        mock_webrtc: bool = False,
        slim: bool | None = None,
    ) -> FingerprintFormat:
        """Put a fingerprint together."""
        made = Fingerprint(
            screen=screen,
            navigator=navigator,
            videoCodecs=video_codecs or {},
            audioCodecs=audio_codecs or {},
            pluginsData=plugins_data or {},
            battery=battery,
            videoCard=video_card,
            multimediaDevices=multimedia_devices or [],
            fonts=fonts or [],
            mockWebRTC=mock_webrtc,
            slim=slim,
        )
        return cls(made, headers)

    def to_json(self) -> str:
        """Return the JSON text, indented by two spaces."""
        return json.dumps(attrs.asdict(self), indent=2, ensure_ascii=False)

    def encoded(self) -> str:
        """Return the JSON text in base64, as the service takes it."""
        return base64.b64encode(self.to_json().encode()).decode()


def _read_fingerprint(fields: Mapping[str, Any]) -> Fingerprint:
    try:
        screen = ScreenFingerprint(**fields.get("screen") or {})
    except TypeError as error:
        raise ValueError(f"Failed to create ScreenFingerprint: {error}") from error
    card = fields.get("videoCard")
    known: dict[str, Any] = {
        name: fields[name] for name in attrs.fields_dict(Fingerprint) if fields.get(name) is not None
    }
    known["screen"] = screen
    known["navigator"] = _read_navigator(fields.get("navigator") or {})
    known["videoCard"] = _read(VideoCard, card) if isinstance(card, Mapping) else VideoCard()
    return Fingerprint(**known)


def _read_navigator(fields: Mapping[str, Any]) -> NavigatorFingerprint:
    agent = _read(UserAgentData, fields.get("userAgentData") or {})
    agent.brands = [_read(Brand, brand) for brand in agent.brands if isinstance(brand, Mapping)]
    agent.fullVersionList = [_read(Brand, brand) for brand in agent.fullVersionList if isinstance(brand, Mapping)]
    made: NavigatorFingerprint = _read(NavigatorFingerprint, fields)
    made.userAgentData = agent
    made.extraProperties = _read(ExtraProperties, fields.get("extraProperties") or {})
    return made


def _read(cls: type[Any], fields: Mapping[str, Any]) -> Any:
    """Make an object of the fields that are there, with defaults for the rest."""
    return cls(**{name: fields[name] for name in attrs.fields_dict(cls) if fields.get(name) is not None})
