# Sourced by a run.sh, in the repository's root: measure_release FOLDER writes what is known of the
# bundled release, talk.json, controls.json and the pictures, there. VASA_MEDIA: folder with
# portraits_test/ and speech/; PAIRS: of portrait and voice (10); OTHERS: folder of portraits that the
# faces of emotions were not chosen by, for emotions.json.
measure_release() {
  .venv/bin/vasa-jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
    --speech "$VASA_MEDIA/speech" --pairs "${PAIRS:-10}" --seconds 8 --json "$1/talk.json"
  .venv/bin/vasa-jax evaluate controls lite --portraits vasa_jax/assets/example/portrait.png \
    --speech vasa_jax/assets/example/speech.flac --most 1 --json "$1/controls.json" \
    --sheets out/controls
  .venv/bin/vasa-jax generate vasa_jax/assets/example/portrait.png \
    vasa_jax/assets/example/speech.flac -o out/example.mp4 --sheet out/controls/example.png
  .venv/bin/python - out/controls "$1" <<'PY'
import sys
from pathlib import Path

from vasa_jax.io.image import read_image, write_image

for name in ("gaze", "distance", "emotion", "blink", "example"):
    write_image(Path(sys.argv[2], f"{name}.jpg"), read_image(Path(sys.argv[1], f"{name}.png")))
PY
  if [ -n "${OTHERS:-}" ]; then
    .venv/bin/vasa-jax evaluate controls lite --portraits "$OTHERS" --most 12 --only emotion \
      --seconds 3 --speech vasa_jax/assets/example/speech.flac --json "$1/emotions.json"
  fi
}
