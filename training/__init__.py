"""What ``train_st.py`` is made of: data, numbers, losses, the trainer and the search over hyper-parameters."""
