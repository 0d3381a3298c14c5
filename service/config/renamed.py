"""Old configuration keys and flags. One is refused with its new name, or with the reason why it is gone.

``deploy/README.md`` lists them under "Renamed before 1.0".
"""

RENAMED_KEYS = {
    "server.window_bytes": "server.flow_control_window_bytes",
    "server.max_streams_per_connection": "server.max_calls_per_connection",
    "upload.silence_s": "upload.idle_timeout_s",
    "fetch.private_networks": "fetch.allowed_private_networks",
    "fetch.max_videos": "fetch.max_concurrent_videos",
    "decode.silence_s": "decode.heartbeat_timeout_s",
    "decode.patience_s": "decode.long_video_after_s",
    "decode.max_long": "decode.max_long_videos",
    "decode.max_uploading": "decode.max_uploading_videos",
}

REMOVED_KEYS = {
    "engine.runtime": "models compute in torch; delete the key",
    "upload.memory_bytes": "all bytes of a video go to an unnamed file in upload.directory",
}

RENAMED_FLAGS = {"--as": "--inflate-to"}
