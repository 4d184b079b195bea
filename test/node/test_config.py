"""The shipped Fast DDS profile says what the documentation promises."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

PROFILE = Path(__file__).parents[2] / "config" / "fastdds.xml"
NAMESPACE = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
IMAGE_1080P_BYTES = 1920 * 1080 * 3


def test_the_profile_has_shared_memory_for_several_images_and_udp_for_other_machines() -> None:
    root = ET.parse(PROFILE).getroot()
    transports = {
        transport.findtext("dds:type", "", NAMESPACE): transport
        for transport in root.findall("dds:transport_descriptors/dds:transport_descriptor", NAMESPACE)
    }
    assert set(transports) == {"SHM", "UDPv4"}
    segment_bytes = int(transports["SHM"].findtext("dds:segment_size", "0", NAMESPACE))
    assert segment_bytes >= 4 * IMAGE_1080P_BYTES
    participant = root.find("dds:participant", NAMESPACE)
    assert participant is not None and participant.get("is_default_profile") == "true"
    used = {node.text for node in participant.findall("dds:rtps/dds:userTransports/dds:transport_id", NAMESPACE)}
    assert used == {transport.findtext("dds:transport_id", "", NAMESPACE) for transport in transports.values()}
