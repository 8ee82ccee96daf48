# Sourced by a run.sh, in the repository's root: tree_before FILE [COMMIT] makes a working tree of the
# commit before FILE was added (as COMMIT, by default HEAD, knows it), names it $before, and removes it
# when the script ends.
tree_before() {
  local folder added
  added=$(git log -1 --format=%H "${2:-HEAD}" --diff-filter=A -- "$1")
  folder=$(mktemp -d)
  before=$folder/before
  trap "git -C '$PWD' worktree remove --force '$before'; rm -rf '$folder'" EXIT
  git worktree add -q --detach "$before" "$added^"
}

# face_before_after NAME FOLDER [OPTION ...]: portraits turned to both sides (options of
# tools/turn_heads.py) and stage 1 against rendered truth, of $before and of this tree, as
# FOLDER/sheet.jpg and FOLDER/results.json. VASA_MEDIA: folder with portraits_test/; VASA_FACEKIT.
face_before_after() {
  local name=$1 folder=$2 top=$PWD side tree
  shift 2
  mkdir -p out
  for side in before after; do
    tree=$top
    if [ $side = before ]; then tree=$before; fi
    (
      cd "$tree"
      export PYTHONPATH=$tree
      "$top/.venv/bin/python" "$top/tools/turn_heads.py" "$top/out/${name}_$side.npy" \
        --portraits "$VASA_MEDIA/portraits_test" "$@"
      "$top/.venv/bin/python" -m vasa_jax.cli.main evaluate face lite --identities 6 --pairs 10 \
        --states 0 --clips= --judges= --source portrait --json "$top/out/${name}_$side.json" \
        > "$top/out/${name}_$side.txt"
    )
  done
  .venv/bin/python tools/turn_heads.py --sheet "$folder/sheet.jpg" out/"$name"_{before,after}.npy
  .venv/bin/python experiments/before_after.py "$folder" "$name"
}
