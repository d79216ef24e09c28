"""A configuration of another trainer in place of a recipe is named as that, with what to do."""

import pytest

from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml

NOT_READ = "which is not read: begin with a recipe that nemo-run list shows, and set its fields"

# From the examples of each project.
FOREIGN = {
    "llama_factory.yaml": (
        "### model\nmodel_name_or_path: llava-hf/llava-1.5-7b-hf\n\n### method\nstage: sft\ndo_train: true\n"
        "finetuning_type: full\n\n### dataset\ndataset: mllm_demo\ntemplate: llava\ncutoff_len: 2048\n"
        "learning_rate: 1.0e-5\n",
        f"LLaMA-Factory, {NOT_READ}: model.language.from_pretrained for model_name_or_path, data.data_path for "
        "dataset, data.conv_template for template, data.sequence_length for cutoff_len, and so on",
    ),
    "llama_factory.json": (
        '{"stage": "sft", "model_name_or_path": "x"}',
        f"LLaMA-Factory, {NOT_READ}: model.language.from_pretrained for model_name_or_path",
    ),
    "axolotl.yml": (
        "base_model: NousResearch/Llama-3.2-1B\ndatasets:\n  - path: a\n    type: alpaca\nlearning_rate: 1e-5\n",
        f"Axolotl, {NOT_READ}: optim.lr for learning_rate",
    ),
    "torchtune.yaml": ("model:\n  _component_: torchtune.models.llama2.llama2_7b\n", f"torchtune, {NOT_READ}"),
    "trl.yaml": (
        "model_name_or_path: a\ndataset_name: b\n",
        f"TRL, {NOT_READ}: model.language.from_pretrained for model_name_or_path",
    ),
    "some.yaml": ("name: a\nepochs: 3\nlayers: 2\n", f"another trainer, {NOT_READ}: trainer.max_epochs for epochs"),
    "xtuner.py": (
        "# Copyright\nfrom mmengine.hooks import CheckpointHook\nmodel = dict(type='LLaVAModel')\n",
        f"XTuner, {NOT_READ}",
    ),
    "gpt.yaml": ("name: a\nexp_manager:\n  name: b\nmodel:\n  num_layers: 2\n", f"NeMo, {NOT_READ}"),
    "neva.yaml": (
        "name: nemo_neva\ntrainer:\n  devices: 8\nmodel:\n  mm_cfg:\n    use_im_start_end: false\n",
        "NeMo and no saved recipe: nemo-run import-nemo neva.yaml makes a recipe of it",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_configuration_of_another_trainer_is_named(name, tmp_path, monkeypatch, capsys):
    text, said = FOREIGN[name]
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main([name, "--dry-run"]) == 2
    assert capsys.readouterr().err == f"error: {name}: is a configuration of {said}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (recipe_to_yaml(llava.finetune("tiny")).replace("optim:", "optin:", 1), "did you mean optim?"),
        ("a: 1\n", "a: no such field"),
        ("- 1\n", "expected a group of fields, got list"),
    ],
)
def test_a_mistake_in_a_saved_recipe_is_told_as_before(text, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["a.yaml", "--dry-run"]) == 2
    assert said in capsys.readouterr().err
