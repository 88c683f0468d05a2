"""FunctionGemma fine-tuning kit: data, training, evaluation and publishing as plain functions."""
