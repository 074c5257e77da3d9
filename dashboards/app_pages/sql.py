import streamlit as st

st.write("Not written yet.")
