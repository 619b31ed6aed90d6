"""Generators: language models that are asked about documents, behind one interface.

    generator: {openai: {url: "http://localhost:8000/v1", model: NAME}}   any compatible server
    generator: {transformers: FOLDER}                                     in this process
    generator: {vllm: FOLDER}                                             in this process, on a GPU

Answers are kept by (model, prompt), so that nothing is asked, or paid, twice.
"""
